"""What a person looks at: contact sheets, curves, tables."""
