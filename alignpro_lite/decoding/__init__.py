"""The batched decoding loop, and what goes into and comes out of it: messages, sampling, text."""
