"""Raw clips to records: folders, tar files, parquet files."""
