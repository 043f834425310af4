"""Reading the header of a GGUF file: which model it holds, without loading it."""
