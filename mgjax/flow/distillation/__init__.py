"""What a student learns from a frozen teacher: guidance in one pass, larger steps."""
