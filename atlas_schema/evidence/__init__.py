"""Where observations are kept: tables, the technician's store, content digests, and the Parquet bundle for exchange."""
