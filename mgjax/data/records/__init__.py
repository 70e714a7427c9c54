"""The row store: shards, writer, reader, object stores."""
