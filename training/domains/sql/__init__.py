"""The SQL domain: language models that write SQL, judged by executing what they write."""
