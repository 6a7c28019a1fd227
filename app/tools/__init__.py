"""The tools: experiments without a lesson's prose, one module each."""
