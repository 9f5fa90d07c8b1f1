"""Video files to frames of 224×224, by processes of their own."""
