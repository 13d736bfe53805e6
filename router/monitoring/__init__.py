"""Is a policy still as good on fresh traffic as it was calibrated?"""
