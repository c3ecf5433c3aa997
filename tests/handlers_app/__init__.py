"""An installed app with handlers, for the tests of Django's side."""
