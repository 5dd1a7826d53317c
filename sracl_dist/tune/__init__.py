"""The search for better settings: many trainings on shared tables, proposed, stopped early and kept."""
