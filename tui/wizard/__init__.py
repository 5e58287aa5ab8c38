"""The guided way as plain data and pure functions: what is asked, what follows, what recipe comes out. No Textual here."""
