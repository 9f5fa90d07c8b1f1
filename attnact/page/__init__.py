"""The report: runs compared on one HTML page that opens from disk and asks the network nothing."""
