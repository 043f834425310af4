"""Models in torch as they are published: folders, GGUF files and adapters. Needs `[export]`."""
