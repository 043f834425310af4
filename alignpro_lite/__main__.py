"""`python -m alignpro_lite` is the same as `alignpro-lite`; `accelerate launch -m` needs it."""

from alignpro_lite.cli import main

if __name__ == "__main__":
    main()
