"""The demo: databases that rules fill, and questions about them with SQL that rules write."""
