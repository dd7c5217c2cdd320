"""What ``convit-ssl study`` consists of."""
