"""mssante"""
