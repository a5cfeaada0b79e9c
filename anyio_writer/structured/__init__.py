"""Python types in, JSON schema out; JSON in, Python values out. No I/O."""
