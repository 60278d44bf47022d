"""Models how Sentinel-1, Sentinel-2 and NAIP see the landscape."""
