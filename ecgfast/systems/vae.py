"""Wiring of the VAE: an encoder that is kept, a decoder that is not."""

from __future__ import annotations

from ecgfast.config.vae import Config
from ecgfast.methods.vae import VAE
from ecgfast.models.conv_vae import ConvVAE, Decoder, Latent
from ecgfast.systems.parts import make_encoder, settled_recipe
from ecgfast.systems.views import make_run, open_records
from ecgfast.train.fit import Run


def build(config: Config) -> Run:
    """From the configuration to what trains and what it trains on."""
    signal = config.signal
    source = open_records(config)
    recipe = settled_recipe(signal, source)
    encoder, model = make_encoder(config.encoder, signal, recipe)
    assert isinstance(encoder, ConvVAE)
    method = VAE(
        encoder,
        Latent(encoder),
        Decoder(
            encoder.num_leads,
            encoder.embedding_dim,
            samples=encoder.samples,
            width=config.encoder.width,
        ),
        beta=config.beta,
        beta_steps=config.beta_steps,
        optim=config.optim,
    )
    return make_run(config, source, method, model=model, recipe=recipe)
