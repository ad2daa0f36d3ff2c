"""Object stores: S3 and what speaks its protocol, Google's (GCS), Azure Blob Storage."""
