"""Spam filters that are asked over the network: SpamAssassin's spamd, and Rspamd."""
