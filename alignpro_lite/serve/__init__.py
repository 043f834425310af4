"""The OpenAI-compatible server and its page; needs the extra `[serve]`."""
