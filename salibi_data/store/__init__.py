"""The floor that both halves stand on: the contract, errors, tiles, storage and files."""
