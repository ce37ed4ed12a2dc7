"""The local cloud: the deployed template on one machine, on a moto that is made strict."""
