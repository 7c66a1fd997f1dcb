# SPDX-License-Identifier: Apache-2.0
"""What is defined in the service: an action, workflows, and a workbook, in its own language."""

from __future__ import annotations

from typing import Final

ACTION: Final = """
version: '2.0'
shout:
  base: std.echo
  base-input:
    output: "<% $.text %>{}"
  input: [text]
"""
"""With the mark that it puts after a text."""

WORKFLOWS: Final = """
version: '2.0'

greet:
  input: [name]
  output:
    greeting: <% $.greeting %>
  tasks:
    say:
      action: shout text="<% env().word %> <% $.name %>"
      publish:
        greeting: <% task().result %>

approve:
  output:
    answer: <% $.answer %>
  tasks:
    ask:
      action: std.async_noop
      publish:
        answer: <% task().result %>
      on-success: note
    note:
      action: std.noop

fail:
  tasks:
    give_up:
      action: std.fail

many:
  input: [items]
  output:
    done: <% $.done %>
  tasks:
    each:
      with-items: item in <% $.items %>
      action: std.echo output=<% $.item %>
      publish:
        done: <% task().result %>

slow:
  input: [item, seconds]
  output:
    done: <% $.done %>
  tasks:
    work:
      action: std.echo output=<% $.item %> delay=<% $.seconds %>
      retry:
        count: 9
        delay: 1
      publish:
        done: <% task().result %>

on_event:
  tasks:
    note:
      action: std.noop
"""

WORKBOOK: Final = """
version: '2.0'
name: book
workflows:
  square:
    input: [number]
    output:
      square: <% $.square %>
    tasks:
      multiply:
        action: std.echo output=<% $.number * $.number %>
        publish:
          square: <% task().result %>
  squares:
    input: [numbers]
    output:
      squares: <% $.squares %>
      count: <% $.count %>
    tasks:
      square_each:
        with-items: number in <% $.numbers %>
        workflow: square number=<% $.number %>
        publish:
          squares: <% task().result.square %>
        on-success: both
      count_them:
        action: std.echo output=<% len($.numbers) %>
        publish:
          count: <% task().result %>
        on-success: both
      both:
        join: all
        action: std.noop
"""
