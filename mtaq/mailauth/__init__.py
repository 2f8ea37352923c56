"""SPF, DKIM, DMARC, ARC and Authentication-Results: who sent this message, decided without sockets."""
