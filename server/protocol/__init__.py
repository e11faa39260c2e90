"""The Realtime protocol as a machine without I/O.

Client events and engine outputs go in, server events and engine commands come out. It imports no
event loop, no web framework and no torch, so it is tested as plain function calls and serves any
transport.

Where to look when something arrives (`machine` sends each to its room):

    a frame                      parse, and dialect or beta; refused in the words of checks
    session.update               session_update, audio_settings, tools -> session_config
    input_audio_buffer.*,        turns, with listening for the open turn, speculation for a reply
      what was heard in audio      begun in a pause, and idle for silence
    conversation.item.*          editing, on conversation and items; item_parse checks them
    response.create, .cancel     request checks it, responses begins and ends it
    what the engine makes        responses finds its reply; speaking says it, calling calls
    what the engine remembers    feed keeps it equal to the conversation; replay tells it items
    what a client may do when    moves, as tables
    how it looks on the wire     dialect (GA) and beta, with item_json and response
"""
