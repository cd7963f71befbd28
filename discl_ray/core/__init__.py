"""Pure ground of all steps: λ, schemas, ids, storage, images, metrics. No torch and no ray."""
