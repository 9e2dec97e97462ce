"""Audits: a stratified sample of labels that people judge, and what their answers say of the run."""
