"""The ``convit-ssl`` commands: one thin file each over the packages below."""
