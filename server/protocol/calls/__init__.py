"""What becomes of calls after the response that made them: approvals, outcomes, ends."""
