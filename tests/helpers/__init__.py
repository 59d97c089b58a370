"""What tests share: configurations, tiny models and studies, stand-ins for hubs and data, faults put in."""
