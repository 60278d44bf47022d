"""S3 as the environment describes it: one reading of it for obstore and for GDAL."""
