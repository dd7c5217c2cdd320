"""What ``convit-ssl segment`` consists of."""
