"""Features: extracted once, cached by fingerprint, written as tables."""
