"""WHAT runs: one thin module per DVC stage; each reads Params, calls components and writes outputs and a report."""
