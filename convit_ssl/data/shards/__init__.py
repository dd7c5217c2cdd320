"""Collections in WebDataset shards and in Parquet files."""
