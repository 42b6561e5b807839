"""Start AWS Mainframe Modernization batch jobs in bulk, from asyncio."""
