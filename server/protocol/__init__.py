"""The Realtime protocol as a machine without I/O.

Client events and engine outputs go in, server events and engine commands come out. It imports no
event loop, no web framework and no torch, so it is tested as plain function calls and serves any
transport.

Where to look when something arrives (`machine` sends each to its room):

    a frame                      wire: parse and checks; dialects translate the beta shape first
    session.update               settings: update, audio and tools make a new config
    input_audio_buffer.*,        user: turns, with listening for the open turn, speculation for a
      what was heard in audio      reply begun in a pause, and idle for silence
    conversation.item.*          editing, on items: conversation, recordings; item_parse checks them
    response.create, .cancel     settings.request checks it; reply.responses begins and ends it
    what the engine makes        reply: responses finds its reply; speaking says it, calling calls
    what the engine remembers    memory: feed keeps it equal to the items; replay tells them
    a model that takes no turns  duplex: what it does differently from user, reply and memory
    what a client may do when    moves, as tables
    how it looks on the wire     dialects: ga and beta, with items.item_json and response
"""
