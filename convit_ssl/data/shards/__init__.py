"""Collections in WebDataset shards and Parquet files."""
