"""``python -m convit_ssl.compat`` prints the table of docs/COMPAT.md."""

from convit_ssl.compat.catalogue import markdown_table

print(markdown_table())
