"""What a store holds, and whether it holds what it promises."""
