"""Fine-tuning for real: strategies of Table 3, data in MMLU's layout, transformers' Trainer, saved results."""
