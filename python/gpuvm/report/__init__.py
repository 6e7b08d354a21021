"""What people look at: tables, the picture of a space, explanations. No file is opened or written here."""
