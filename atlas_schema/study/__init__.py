"""Writing a study: identities, probe, pre-registration, and issuing a receipt."""
