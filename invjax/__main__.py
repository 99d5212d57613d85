"""`python -m invjax`: what the command `invjax` does."""

from invjax.commands import dispatcher

if __name__ == "__main__":
    dispatcher.main()
