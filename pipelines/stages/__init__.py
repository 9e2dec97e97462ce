"""One class per step of a job."""
