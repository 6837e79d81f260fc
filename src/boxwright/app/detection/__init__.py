"""Detection on files, folders and videos."""
